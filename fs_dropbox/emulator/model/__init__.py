"""What the emulator has: accounts, trees, contents, sessions, cursors, and the rules of every change. Knows no HTTP."""
