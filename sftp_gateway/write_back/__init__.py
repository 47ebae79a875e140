"""Write-back: a filesystem whose files are acknowledged from a journal on local disk and delivered later."""
