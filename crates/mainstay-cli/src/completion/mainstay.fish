# Completions of mainstay for fish. Load them with: mainstay completions fish | source
function __mainstay_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines ($words[1] complete fish -- $words[2..] "$current" 2>/dev/null)
    switch "$lines[1]"
        case files
            __fish_complete_path "$current"
        case dirs
            __fish_complete_directories "$current"
        case words
            printf '%s\n' $lines[2..]
    end
end
complete --command mainstay --no-files --keep-order --arguments '(__mainstay_complete)'
