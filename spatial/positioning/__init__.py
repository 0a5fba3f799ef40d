"""Where a phone is: readers, radio map, dead reckoning, filters. Pure: arrays and files in, arrays and files out; no clock, no socket."""
