"""Whether what the service sees now differs from what its heads were trained on."""
