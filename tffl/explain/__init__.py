"""What clients' models look at: class activation maps, and pictures of them."""
