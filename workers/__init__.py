"""One module per stream: its decode function and its ``STREAM`` declaration. Modules with a leading underscore help."""
