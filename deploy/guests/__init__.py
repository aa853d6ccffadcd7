"""Two small Linux guests, one for KVM and one for LXC, built from Debian packages to try the data center out."""
