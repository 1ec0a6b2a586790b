module supportfleet.dev/pause

go 1.22
