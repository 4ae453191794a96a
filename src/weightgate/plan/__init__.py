"""What a build will cost before it is started: parameters, FLOPs, memory, disk, time and price. No torch."""
