package datapath

//go:generate go tool bpf2go -go-package datapath -output-stem vswitch -output-suffix "" -target bpfel -cc clang -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter" -no-global-types vswitch ../../bpf/vswitch.bpf.c -- -I../../bpf -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go run ../../tools/genstamp vswitch_bpfel.stamp ../../bpf gen.go
