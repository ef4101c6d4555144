"""tffl's defenses in servers of other frameworks; each needs an extra, such as `tffl[flower]`."""
