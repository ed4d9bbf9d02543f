"""One rank of many on fake tensors: the real engine without memory, peers or device."""
