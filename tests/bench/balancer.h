// What a Maglev in user space does to a packet (Maglev §3.2, §3.3): connection table, lookup table, GRE, in place.
//
//     headroom | Ethernet | client's IP packet            before: 24 bytes of headroom are needed
//     Ethernet | IP | GRE | client's IP packet            after: the frame begins 24 bytes earlier
//
// Left out, because it moves no figure: expiry of connections, health, more than one VIP.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet.h"

#define CONNECTIONS (1u << 18) // entries of the connection table; a power of two
#define PROBES 16              // entries that a search looks at before it gives up

struct connection {
    uint32_t source, destination;
    uint16_t source_port, destination_port;
    uint8_t protocol, used;
    uint16_t backend;
}; // 16 bytes: four to a cache line

struct balancer {
    struct connection *connections;
    uint16_t slots[TABLE_SIZE]; // the lookup table: a backend's number for each slot
};

// Returns a balancer whose lookup table is read from a file of 16-bit numbers; does not return without one.
static inline struct balancer *new_balancer(const char *lookup_table)
{
    struct balancer *balancer = calloc(1, sizeof *balancer);
    FILE *file = fopen(lookup_table, "rb");
    if (!balancer || !file || fread(balancer->slots, sizeof(uint16_t), TABLE_SIZE, file) != TABLE_SIZE) {
        fprintf(stderr, "%s is no lookup table of %d slots\n", lookup_table, TABLE_SIZE);
        exit(1);
    }
    fclose(file);
    balancer->connections = calloc(CONNECTIONS, sizeof(struct connection));
    memset(balancer->connections, 0, CONNECTIONS * sizeof(struct connection)); // touched now, not under load
    return balancer;
}

// Multiplies and folds, which carries every bit of the flow into every bit of the hash.
static inline uint64_t mixed(uint64_t number)
{
    number = (number ^ number >> 32) * 0xd6e8feb86659fd93u;
    number = (number ^ number >> 32) * 0xd6e8feb86659fd93u;
    return number ^ number >> 32;
}

static inline uint64_t hash_flow(const struct flow *flow)
{
    uint64_t addresses = (uint64_t)flow->source << 32 | flow->destination;
    uint64_t ports = (uint64_t)flow->source_port << 32 | (uint64_t)flow->destination_port << 16 | flow->protocol;
    return mixed(addresses ^ mixed(ports));
}

static inline bool belongs(const struct connection *entry, const struct flow *flow)
{
    return entry->source == flow->source && entry->destination == flow->destination &&
           entry->source_port == flow->source_port && entry->destination_port == flow->destination_port &&
           entry->protocol == flow->protocol;
}

// Returns a flow's backend: the remembered one, or the one that the lookup table selects, which is then remembered.
static inline uint16_t backend_of(struct balancer *balancer, const struct flow *flow)
{
    uint64_t hash = hash_flow(flow);
    for (unsigned probe = 0; probe < PROBES; probe++) {
        struct connection *entry = &balancer->connections[(hash + probe) & (CONNECTIONS - 1)];
        if (!entry->used) {
            uint16_t selected = balancer->slots[(hash >> 32) % TABLE_SIZE];
            *entry = (struct connection){flow->source, flow->destination, flow->source_port, flow->destination_port,
                                         flow->protocol, true, selected};
            return selected;
        }
        if (belongs(entry, flow))
            return entry->backend;
    }
    return balancer->slots[(hash >> 32) % TABLE_SIZE]; // no room: selected packet by packet
}

// Encapsulates a frame for its backend; returns the length of the new frame, which begins GRE_OVERHEAD bytes earlier,
// or 0 if the frame is none to balance.
static inline unsigned balance(struct balancer *balancer, uint8_t *frame, unsigned bytes)
{
    struct flow flow;
    unsigned total = read_flow(frame, frame + bytes, &flow);
    if (total == 0)
        return 0;
    uint8_t tos = ((struct iphdr *)(frame + sizeof(struct ethhdr)))->tos;
    write_tunnel((struct tunnel_header *)(frame - GRE_OVERHEAD), total, tos, backend_of(balancer, &flow));
    return sizeof(struct tunnel_header) + total;
}
