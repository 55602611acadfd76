"""What a step of pre-training costs on many GPUs, calculated: time, memory, bytes over the network, and what to set."""
