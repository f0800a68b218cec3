// kernel-xdp: a Maglev in the kernel. The program runs where the driver has just received a frame, before the kernel
// makes a socket buffer for it, and sends the frame back out of the same interface (XDP_TX).
//
// It does the lookups that the forwarder does for every packet, with what the kernel has for each: the VIP (a hash
// table), the connection (a hash table that forgets the least recently used one when it is full, and here those that
// were idle for too long), else the lookup table (an array), the backend (an array); and it counts by backend.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <stdbool.h>
#include <stddef.h>

#include "kernel_xdp.h"
#include "packet.h"

#define CONNECTIONS (1 << 20)
#define MOST_VIPS 16384
#define IDLE_TIMEOUT_S 60
#define NS_PER_S 1000000000
#define MAPPED NET32(0x0000ffff) // the third word of an IPv4 address in 16 bytes

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, MOST_VIPS);
    __type(key, struct service);
    __type(value, __u32);
} services SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, CONNECTIONS);
    __type(key, struct session);
    __type(value, struct selection);
} connections SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, TABLE_SIZE);
    __type(key, __u32);
    __type(value, __u32);
} lookup_table SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, BACKENDS);
    __type(key, __u32);
    __type(value, __u32);
} backends SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, BACKENDS);
    __type(key, __u32);
    __type(value, __u64);
} forwarded SEC(".maps");

// Multiplies and folds; 32 bits are enough to spread flows over the slots.
static ALWAYS_INLINE __u32 slot_of(const struct flow *flow)
{
    __u32 hash = flow->source * 0x9e3779b1u ^ flow->destination ^ flow->protocol;
    hash = (hash ^ hash >> 15) * 0x85ebca77u ^ ((__u32)flow->source_port << 16 | flow->destination_port);
    hash = (hash ^ hash >> 13) * 0xc2b2ae3du;
    return (hash ^ hash >> 16) % TABLE_SIZE;
}

// Returns a flow's backend: the remembered one, or the one that the lookup table selects, which is then remembered.
static ALWAYS_INLINE __u32 backend_of(const struct flow *flow)
{
    __u32 now_s = bpf_ktime_get_coarse_ns() / NS_PER_S;
    struct session session = {
        .source = {{0, 0, MAPPED, flow->source}}, .destination = {{0, 0, MAPPED, flow->destination}},
        .source_port = flow->source_port, .destination_port = flow->destination_port, .protocol = flow->protocol,
    };
    struct selection *known = bpf_map_lookup_elem(&connections, &session);
    if (known && now_s - known->seen_s <= IDLE_TIMEOUT_S) {
        known->seen_s = now_s;
        return known->backend;
    }
    __u32 slot = slot_of(flow);
    __u32 *selected = bpf_map_lookup_elem(&lookup_table, &slot);
    if (!selected)
        return 0; // cannot be, but the verifier does not know that every slot is in the array
    struct selection selection = {*selected, now_s};
    bpf_map_update_elem(&connections, &session, &selection, BPF_ANY);
    return *selected;
}

static ALWAYS_INLINE bool is_served(const struct flow *flow)
{
    struct service service = {{{0, 0, MAPPED, flow->destination}}, flow->destination_port, flow->protocol};
    return bpf_map_lookup_elem(&services, &service) != NULL;
}

SEC("xdp")
int balance(struct xdp_md *context)
{
    struct flow flow;
    void *frame = (void *)(long)context->data;
    __u16 total = read_flow(frame, (void *)(long)context->data_end, &flow);
    if (total == 0 || !is_served(&flow))
        return XDP_PASS;
    __u8 tos = ((struct iphdr *)(frame + sizeof(struct ethhdr)))->tos;
    int padding = context->data_end - context->data - sizeof(struct ethhdr) - total;
    if (padding > 0 && bpf_xdp_adjust_tail(context, -padding))
        return XDP_DROP;
    if (bpf_xdp_adjust_head(context, -(int)GRE_OVERHEAD))
        return XDP_DROP;
    struct tunnel_header *tunnel = (void *)(long)context->data;
    __u32 number = backend_of(&flow), *backend = bpf_map_lookup_elem(&backends, &number);
    __u64 *count = bpf_map_lookup_elem(&forwarded, &number);
    if ((void *)(tunnel + 1) > (void *)(long)context->data_end || !backend || !count)
        return XDP_DROP;
    ++*count;
    write_tunnel(tunnel, total, tos, *backend);
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
