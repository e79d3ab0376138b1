// Package fault breaks one vault in every way that its makers could think of,
// and looks what is left: acknowledged data that is lost, allowed none.
//
// The lanes, each in a file of its own:
//
//	crash_test.go    the whole stack on a simulated disk, cut at every operation
//	errors_test.go   every call of that disk, and of what is backed up, fails once
//	damage_test.go   what lies in the vault is damaged, swapped, removed; forge_test.go
//	told_test.go     the same on the program: exit codes and words
//	kill_test.go     backups are killed by SIGKILL at random moments; other
//	                 commands in killmore_test.go
//	signal_test.go   it is interrupted; a second writer waits for it
//	space_test.go    disks that are really full, really read-only
//	files_test.go    files that cannot be read, change and vanish
//	canary_test.go   nothing readable lies in the vault
//
// The first three run engines and vault in this process, over files in memory
// (memtree_test.go) and the stack of world_test.go; the others run the program
// itself, as binary_test.go starts it.
//
// Sizes: -short is a taste, the default is what every CI run does, TRIPOD_LONG=1
// are the big numbers. Every lane prints its seed; TRIPOD_SEED repeats one.
package fault
