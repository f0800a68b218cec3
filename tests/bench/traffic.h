// What traffic.c asks of traffic.bpf.c, and what it is told.
#pragma once

#include <linux/types.h>

struct order {
    __u32 interface;    // to send on
    __u32 flows, vips;  // how many of each the packets belong to
    __u32 stride;       // from one packet's flow to the next's: prime to `flows`, so that every flow has its turn
    __u32 syn_every;    // of so many TCP packets one is a SYN; 0: none
    __u32 header_sum;   // of the first packet's IP header without checksum and the last 16 bits of both addresses
    __u32 batch;        // packets that go out together
    __u64 gap_ns;       // between two batches; 0: as fast as it goes
};

struct turn {
    __u64 sent;
    __u64 due_ns; // when the next batch may go
    __u32 flow;
};

struct returned {
    __u64 balanced; // came back in GRE
    __u64 plain;    // came back as they were
};
