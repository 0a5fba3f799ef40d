"""Pure spatial code: frames, venues, index, geofences, offers, search. No asyncio, Ray, sockets, database or wall clock."""
