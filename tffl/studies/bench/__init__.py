"""How fast tffl is: `tffl bench`."""
