#compdef mainstay
# Completions of mainstay for zsh. Load them with: source <(mainstay completions zsh)
_mainstay() {
    local -a lines
    lines=("${(@f)$("${words[1]}" complete zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    local kind=$lines[1]
    shift lines
    case $kind in
        files) _files ;;
        dirs) _files -/ ;;
        words) (( $#lines )) && _describe -V mainstay lines ;;
    esac
}
if [[ $funcstack[1] == _mainstay ]]; then
    _mainstay "$@"
else
    compdef _mainstay mainstay
fi
