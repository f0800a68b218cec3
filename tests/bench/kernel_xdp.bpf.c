// kernel-xdp: a Maglev in the kernel. The program runs where the driver has just received a frame, before the kernel
// makes a socket buffer for it, and sends the frame back out of the same interface (XDP_TX).
//
// The connection table forgets the least recently used connection when it is full; the lookup table is an array.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "packet.h"

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 1 << 18);
    __type(key, struct flow);
    __type(value, __u32);
} connections SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, TABLE_SIZE);
    __type(key, __u32);
    __type(value, __u32);
} lookup_table SEC(".maps");

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
    __u32 *known = bpf_map_lookup_elem(&connections, flow);
    if (known)
        return *known;
    __u32 slot = slot_of(flow);
    __u32 *selected = bpf_map_lookup_elem(&lookup_table, &slot);
    if (!selected)
        return 0; // cannot be, but the verifier does not know that every slot is in the array
    bpf_map_update_elem(&connections, flow, selected, BPF_ANY);
    return *selected;
}

SEC("xdp")
int balance(struct xdp_md *context)
{
    struct flow flow;
    void *frame = (void *)(long)context->data;
    __u16 total = read_flow(frame, (void *)(long)context->data_end, &flow);
    if (total == 0)
        return XDP_PASS;
    __u8 tos = ((struct iphdr *)(frame + sizeof(struct ethhdr)))->tos;
    int padding = context->data_end - context->data - sizeof(struct ethhdr) - total;
    if (padding > 0 && bpf_xdp_adjust_tail(context, -padding))
        return XDP_DROP;
    if (bpf_xdp_adjust_head(context, -(int)GRE_OVERHEAD))
        return XDP_DROP;
    struct tunnel_header *tunnel = (void *)(long)context->data;
    if ((void *)(tunnel + 1) > (void *)(long)context->data_end)
        return XDP_DROP;
    write_tunnel(tunnel, total, tos, backend_of(&flow));
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
