"""Tables of text, and how a terminal of any width shows them."""
