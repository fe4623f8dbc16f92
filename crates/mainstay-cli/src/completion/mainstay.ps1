# Completions of mainstay for PowerShell. Load them with:
#   mainstay completions powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName mainstay -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition } |
        ForEach-Object { "$_" })
    if ($words.Count -eq 0) { return }
    $before = @($words | Select-Object -Skip 1)
    # Windows PowerShell drops empty arguments, so the word ends with a dot, which is removed.
    $lines = @(& $words[0] complete powershell -- @before "$wordToComplete." 2>$null)
    if ($lines.Count -eq 0 -or $lines[0] -ne 'words') { return }
    $lines | Select-Object -Skip 1 | ForEach-Object {
        $value, $help = $_ -split "`t", 2
        if (-not $help) { $help = $value }
        [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
    }
}
