"""Tables of parameters, and the HTML page about a fit."""
