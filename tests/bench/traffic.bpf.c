// Packets for a Maglev, made and counted in the kernel, on the router's end of the wire.
//
// `make` is run over one frame again and again (BPF_F_TEST_XDP_LIVE_FRAMES, Documentation/bpf/bpf_prog_run.rst): each
// time it writes the next flow into it and sends it. `count` drops what comes back, and counts it.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#include "packet.h"
#include "traffic.h"

#define FIRST_SOURCE 0xc6120000u // 198.18.0.0/15, set aside for benchmarks (RFC 2544): 2^17 addresses
#define SOURCE_BITS 17
#define FIRST_PORT 1024
#define TCP_FLAGS 13 // where they are in the TCP header
#define SYN 0x02
#define ACK 0x10
#define HEADERS (sizeof(struct ethhdr) + sizeof(struct iphdr))
#define LATE_NS 2000000 // who is later than this starts counting anew instead of catching up in a burst
#define MOST_LOOKS 4000000

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct order);
} orders SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct turn);
} turns SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct returned);
} returns SEC(".maps");

static const __u32 only = 0; // the one key of each map

static long is_due(__u32 look, __u64 *due_ns)
{
    (void)look;
    return bpf_ktime_get_ns() >= *due_ns;
}

// Waits until the next batch may go. Bounded, as everything in BPF is.
static ALWAYS_INLINE void keep_pace(struct turn *turn, const struct order *order)
{
    __u64 now = bpf_ktime_get_ns();
    if (now > turn->due_ns + LATE_NS)
        turn->due_ns = now;
    __u64 due_ns = turn->due_ns;
    bpf_loop(MOST_LOOKS, is_due, &due_ns, 0);
    turn->due_ns += order->gap_ns;
}

// Writes a flow into a packet: its addresses, its source port, and the checksum that these make right (RFC 1624).
static ALWAYS_INLINE void write_flow(struct iphdr *ip, struct udphdr *transport, __u32 flow, const struct order *order)
{
    __u32 source = FIRST_SOURCE + (flow & ((1 << SOURCE_BITS) - 1));
    __u32 vip = VIP + (order->vips > 1 ? flow % order->vips : 0);
    __u32 sum = order->header_sum + (source >> 16) + (source & 0xffff) + (vip >> 16) + (vip & 0xffff);
    sum = (sum & 0xffff) + (sum >> 16);
    ip->check = NET16((__u16)~((sum & 0xffff) + (sum >> 16)));
    ip->ttl = TTL;
    ip->saddr = NET32(source);
    ip->daddr = NET32(vip);
    transport->source = NET16(FIRST_PORT + ((flow & 0xff) << 7 | flow >> SOURCE_BITS));
}

SEC("xdp")
int make(struct xdp_md *context)
{
    struct ethhdr *ethernet = (void *)(long)context->data;
    struct iphdr *ip = (void *)(ethernet + 1);
    struct udphdr *transport = (void *)(ip + 1);
    __u8 *flags = (__u8 *)transport + TCP_FLAGS;
    struct order *order = bpf_map_lookup_elem(&orders, &only);
    struct turn *turn = bpf_map_lookup_elem(&turns, &only);
    if ((void *)(flags + 1) > (void *)(long)context->data_end || !order || !turn)
        return XDP_ABORTED;
    if (order->gap_ns && turn->sent % order->batch == 0)
        keep_pace(turn, order);
    // Frames go round: whoever had this one before may have put another header into it, or counted its TTL down.
    *ethernet = (struct ethhdr){.h_dest = MAGLEV_MAC, .h_source = ROUTER_MAC, .h_proto = NET16(ETH_P_IP)};
    write_flow(ip, transport, turn->flow, order);
    if (ip->protocol == PROTOCOL_TCP)
        *flags = order->syn_every && turn->sent % order->syn_every == 0 ? SYN : ACK;
    turn->flow += order->stride;
    if (turn->flow >= order->flows)
        turn->flow -= order->flows;
    turn->sent++;
    return bpf_redirect(order->interface, 0);
}

// Drops and counts a frame that came back, whoever sent it and however; others go their way.
SEC("tc")
int count(struct __sk_buff *context)
{
    if (context->data_end - context->data < HEADERS) // a sender's ring lends its pages, and the headers lie in one
        bpf_skb_pull_data(context, HEADERS);
    const struct ethhdr *ethernet = (const void *)(long)context->data;
    const struct iphdr *ip = (const void *)(ethernet + 1);
    struct returned *returned = bpf_map_lookup_elem(&returns, &only);
    if (!returned || (const void *)(ip + 1) > (const void *)(long)context->data_end ||
        ethernet->h_proto != NET16(ETH_P_IP))
        return TC_ACT_OK;
    if (ip->protocol == PROTOCOL_GRE)
        returned->balanced++;
    else if (ip->saddr == NET32(MAGLEV_ADDRESS))
        return TC_ACT_OK; // the Maglev's own words
    else
        returned->plain++;
    return TC_ACT_SHOT;
}

char _license[] SEC("license") = "GPL";
