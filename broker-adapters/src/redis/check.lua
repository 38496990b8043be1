-- Whether a partition's keys are Fanfare's, or free: ARGV `adopt` or nothing. Writes nothing.
local there = look()
if there.foreign and ARGV[1] ~= 'adopt' then return foreign(there.foreign) end
return 'free'
