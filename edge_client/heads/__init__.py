"""The heads in inference, numpy only: forward passes, ensemble, file and figures."""
