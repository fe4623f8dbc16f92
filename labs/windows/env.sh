# Sourced by the scripts beside it, and by test scripts: paths, and a Wine prefix's life.
LAB_HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
LAB_CACHE="${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mainstay-labs}"
LAB_DIR="$LAB_CACHE/windows"
LAB_RUST="$LAB_DIR/rustc-web"           # Debian's compiler with the sources of its std, unpacked
LAB_RUSTC="$LAB_DIR/bin/rustc"          # what cargo calls; clippy wants this very name
LAB_SHIM="$LAB_DIR/shim"                # bcryptprimitives.dll, which Wine 8 lacks
LAB_TEMPLATE="$LAB_DIR/wine-template"   # a prefix nobody has run anything in
LAB_CADDY_EXE="$LAB_DIR/caddy/caddy.exe"      # a real server, for tests; they skip what wants it where there is none
LAB_TARGET="${LAB_TARGET:-x86_64-pc-windows-gnu}"

# lab_windows_path PATH: what programs in Wine call it.
lab_windows_path() { printf 'Z:%s' "${1//\//\\}"; }

# lab_wine_env: what every call of Wine needs. The prefix is $WINEPREFIX, or the lab's own.
lab_wine_env() {
    export WINEPREFIX="${WINEPREFIX:-$LAB_DIR/wine-prefix}"
    export WINEARCH=win64
    export WINEDEBUG="${WINEDEBUG:--all}"
    # No .NET, no HTML, no menus; no debugger, so that what crashes ends at once.
    export WINEDLLOVERRIDES="${WINEDLLOVERRIDES:-mscoree=;mshtml=;winemenubuilder.exe=d;winedbg.exe=d}"
    unset DISPLAY WAYLAND_DISPLAY
    export LAB_CADDY; LAB_CADDY="$(lab_windows_path "$LAB_CADDY_EXE")"
}

# lab_new_prefix DIR: a prefix like the template, unless it is there.
lab_new_prefix() {
    [ -e "$1/system.reg" ] && return 0
    [ -e "$LAB_TEMPLATE/.done" ] || { echo "no template prefix: run setup" >&2; return 1; }
    mkdir -p "$1"
    cp -a "$LAB_TEMPLATE"/*.reg "$LAB_TEMPLATE"/dosdevices "$LAB_TEMPLATE"/.update-timestamp "$1/"
    # 700 MB of system files, which nobody writes into: links, where the file system allows them.
    cp -al "$LAB_TEMPLATE/drive_c" "$1/" 2>/dev/null ||
        { rm -rf "$1/drive_c"; cp -a "$LAB_TEMPLATE/drive_c" "$1/"; }
}

# lab_boot: starts the prefix's daemons, away from our pipes (whoever reads those would wait for as long as
# the daemons live), and to stay (-p; else services are killed soon after the last program has ended).
lab_boot() {
    wineserver -k0 2>/dev/null && return 0
    wineserver -p >/dev/null 2>&1 </dev/null
    wine wineboot >/dev/null 2>&1 </dev/null
}

# lab_halt: a power cut for the prefix. Services are not told.
lab_halt() { wineserver -k 2>/dev/null || true; wineserver -w 2>/dev/null || true; }
