-- Shows that the Redis user may run scripts. Reply: 1.
return 1
