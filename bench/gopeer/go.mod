module gopeer

go 1.27
