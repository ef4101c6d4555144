"""tffl's defenses in other people's servers; each module needs an extra, such as `tffl[flower]`."""
