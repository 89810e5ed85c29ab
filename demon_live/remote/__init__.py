"""An engine on another machine: client here, server there, and what goes between them."""
