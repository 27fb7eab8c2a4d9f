"""The documentation: pages, and in `generators` what is made of the code when the site is built."""
