"""The methods: how heads train and classify, one file each. None imports torch before it trains."""
