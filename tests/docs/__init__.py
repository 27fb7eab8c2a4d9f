"""The documentation: what is made of the code is whole, what is written names what exists."""
