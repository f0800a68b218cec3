// What kernel_xdp.c puts into the maps of kernel_xdp.bpf.c. Addresses have 16 bytes, as in the forwarder: IPv4's are
// mapped into them (RFC 4291 2.5.5.2).
#pragma once

#include <linux/types.h>

struct address {
    __u32 words[4];
};

struct service { // what a VIP is known by
    struct address address;
    __u16 port;
    __u16 protocol;
};

struct session { // what a connection is known by
    struct address source, destination;
    __u16 source_port, destination_port;
    __u32 protocol;
};

struct selection {
    __u32 backend;
    __u32 seen_s; // when its last packet came, on the kernel's own clock
};
