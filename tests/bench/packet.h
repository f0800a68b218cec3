// A packet on the wire between router and Maglev: the addresses that lab/bench/wiring.py gives out, how a flow is
// read from a frame, and how GRE goes around it (RFC 2784). Shared by programs in user space and in BPF, so it calls nothing.
#pragma once

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <linux/udp.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

// x86-64 and arm64 are little-endian, and the network is not.
#define NET16(number) __builtin_bswap16(number)
#define NET32(number) __builtin_bswap32(number)

#define ROUTER_MAC {2, 0, 0, 0, 0, 1}
#define MAGLEV_MAC {2, 0, 0, 0, 0, 2}
#define MAGLEV_ADDRESS 0x0a010102u // 10.1.1.2
#define VIP 0xc0000201u            // 192.0.2.1
#define VIP_PORT 80
#define FIRST_BACKEND 0x0a020001u // 10.2.0.1; backend i has the i-th address after it
#define BACKENDS 100
#define TABLE_SIZE 65537 // slots of the lookup table (Maglev §3.4)

#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_GRE 47
#define DONT_FRAGMENT 0x4000
#define FRAGMENT_BITS 0x3fff // more fragments, or an offset
#define TTL 64

// What a connection is known by; in network byte order, and without a gap, so that it can be compared and hashed whole.
struct flow {
    __u32 source, destination;
    __u16 source_port, destination_port;
    __u32 protocol;
};

struct gre_header {
    __u16 flags_and_version, protocol;
};

// All that stands before the client's packet on its way to a backend.
struct tunnel_header {
    struct ethhdr ethernet;
    struct iphdr ip;
    struct gre_header gre;
} __attribute__((packed));

#define GRE_OVERHEAD (sizeof(struct iphdr) + sizeof(struct gre_header)) // what a packet grows by: 24 bytes

// Returns the one's complement sum of an IP header without options (RFC 1071): 0xffff if its checksum is right.
static ALWAYS_INLINE __u16 header_sum(const void *ip)
{
    typedef __u16 __attribute__((may_alias)) word;
    const word *words = ip;
    __u32 sum = 0;
    for (int i = 0; i < 10; i++)
        sum += words[i];
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

// Reads the flow of a frame that is sound and meant for the VIP; returns its IP packet's length, or 0 for all others.
static ALWAYS_INLINE __u16 read_flow(const void *frame, const void *end, struct flow *flow)
{
    const struct ethhdr *ethernet = frame;
    const struct iphdr *ip = (const void *)(ethernet + 1);
    const struct udphdr *transport = (const void *)(ip + 1); // TCP has its ports in the same place
    if ((const void *)(transport + 1) > end || ethernet->h_proto != NET16(ETH_P_IP) || ip->version != 4 || ip->ihl != 5)
        return 0;
    __u16 total = NET16(ip->tot_len);
    __u16 least = sizeof *ip + (ip->protocol == PROTOCOL_TCP ? sizeof(struct tcphdr) : sizeof(struct udphdr));
    if (total < least || total > (const char *)end - (const char *)ip || header_sum(ip) != 0xffff)
        return 0;
    if (ip->frag_off & NET16(FRAGMENT_BITS) || (ip->protocol != PROTOCOL_TCP && ip->protocol != PROTOCOL_UDP))
        return 0;
    if (ip->daddr != NET32(VIP) || transport->dest != NET16(VIP_PORT))
        return 0;
    *flow = (struct flow){ip->saddr, ip->daddr, transport->source, transport->dest, ip->protocol};
    return total;
}

// Writes the way to a backend in front of an IP packet of `total` bytes, over the Ethernet header that was there.
// `tos` is the inner packet's: DSCP and ECN are copied outwards (RFC 2983 uniform model, RFC 6040).
static ALWAYS_INLINE void write_tunnel(struct tunnel_header *tunnel, __u16 total, __u8 tos, __u32 backend)
{
    *tunnel = (struct tunnel_header){
        .ethernet = {.h_dest = ROUTER_MAC, .h_source = MAGLEV_MAC, .h_proto = NET16(ETH_P_IP)},
        .ip = {.version = 4, .ihl = 5, .tos = tos, .tot_len = NET16(total + GRE_OVERHEAD),
               .frag_off = NET16(DONT_FRAGMENT), .ttl = TTL, .protocol = PROTOCOL_GRE,
               .saddr = NET32(MAGLEV_ADDRESS), .daddr = NET32(FIRST_BACKEND + backend)},
        .gre = {.protocol = NET16(ETH_P_IP)},
    };
    tunnel->ip.check = ~header_sum(&tunnel->ip);
}
