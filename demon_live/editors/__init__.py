"""Doors for programs that write scores: `demon lsp` for editors, `demon mcp` for agents.

    text             names, blocks, colours and fixes in the text of a score: pure functions
    language_server  the Language Server Protocol over stdin and stdout
    agents           the Model Context Protocol over stdin and stdout

Both are processes of their own. They reach a session only through its control socket.
"""
