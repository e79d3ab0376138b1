// Command tripod backs up, recovers and keeps going.
package main

func main() {}
