"""What tests stand on: virtual time, a store in memory, a cluster without a kubelet, benches of tools and models."""
