// c-xdp: a Maglev on AF_XDP (Documentation/networking/af_xdp.rst). A frame arrives in memory that the kernel shares
// with us and leaves from the same place; only its address travels, through four rings:
//
//     fill: free frames -> kernel -> receive: frames that arrived -> balance -> send: frames to go -> kernel
//       ^------------------------------- completion: frames that are gone <-------------------------------'
//
//     af_xdp INTERFACE LOOKUP_TABLE native|generic
//
// A native program runs in the driver before the kernel has made a socket buffer, a generic one after.
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "balancer.h"
#include "program.h"

#define ENTRIES 4096u // of each ring, and frames in the shared memory; a power of two
#define FRAME_BYTES 2048u
#define BATCH 64u
#define SOL_XDP 283

// Our view of a ring: one side produces, the other consumes, each says how far it has come.
struct ring {
    uint32_t *producer, *consumer;
    void *entries;
};

struct endpoint {
    int socket;
    uint8_t *memory;
    struct ring fill, completion, receive, send;
    uint32_t filled, completed, received, sent; // how far we have come in each
};

static uint32_t load(const uint32_t *counter) { return __atomic_load_n(counter, __ATOMIC_ACQUIRE); }
static void publish(uint32_t *counter, uint32_t value) { __atomic_store_n(counter, value, __ATOMIC_RELEASE); }
static uint64_t *address_at(struct ring *ring, uint32_t i) { return (uint64_t *)ring->entries + i % ENTRIES; }
static struct xdp_desc *frame_at(struct ring *ring, uint32_t i)
{
    return (struct xdp_desc *)ring->entries + i % ENTRIES;
}

static void set_option(int socket, int name, const void *value, socklen_t bytes)
{
    require(setsockopt(socket, SOL_XDP, name, value, bytes) == 0, "setsockopt");
}

static struct ring map_ring(int socket, const struct xdp_ring_offset *at, size_t entry_bytes, uint64_t which)
{
    size_t bytes = at->desc + ENTRIES * entry_bytes;
    uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, socket, which);
    require(memory != MAP_FAILED, "mmap");
    return (struct ring){(uint32_t *)(memory + at->producer), (uint32_t *)(memory + at->consumer), memory + at->desc};
}

// Shares memory with the kernel and makes the four rings on it.
static void open_rings(struct endpoint *end)
{
    static const int options[] = {XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING, XDP_TX_RING};
    size_t bytes = (size_t)ENTRIES * FRAME_BYTES;
    int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
    end->memory = mmap(NULL, bytes, protection, flags, -1, 0);
    end->socket = socket(AF_XDP, SOCK_RAW, 0);
    require(end->memory != MAP_FAILED && end->socket >= 0, "AF_XDP");
    struct xdp_umem_reg shared = {.addr = (uintptr_t)end->memory, .len = bytes, .chunk_size = FRAME_BYTES};
    set_option(end->socket, XDP_UMEM_REG, &shared, sizeof shared);
    for (int i = 0; i < 4; i++)
        set_option(end->socket, options[i], &(int){ENTRIES}, sizeof(int));
    struct xdp_mmap_offsets at;
    require(getsockopt(end->socket, SOL_XDP, XDP_MMAP_OFFSETS, &at, &(socklen_t){sizeof at}) == 0, "getsockopt");
    end->fill = map_ring(end->socket, &at.fr, sizeof(uint64_t), XDP_UMEM_PGOFF_FILL_RING);
    end->completion = map_ring(end->socket, &at.cr, sizeof(uint64_t), XDP_UMEM_PGOFF_COMPLETION_RING);
    end->receive = map_ring(end->socket, &at.rx, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING);
    end->send = map_ring(end->socket, &at.tx, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING);
}

// Has every frame that arrives on the interface's first queue redirected to the socket, as long as this process lives.
static void redirect_frames(int socket, unsigned interface, bool native)
{
    struct sockaddr_xdp address = {.sxdp_family = AF_XDP, .sxdp_ifindex = interface, .sxdp_flags = XDP_COPY};
    require(bind(socket, (void *)&address, sizeof address) == 0, "bind");
    int sockets = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "sockets", sizeof(int), sizeof(int), 1, NULL);
    require(sockets >= 0 && bpf_map_update_elem(sockets, &(int){0}, &socket, BPF_ANY) == 0, "map of sockets");
    struct bpf_insn program[] = {
        // return bpf_redirect_map(&sockets, 0, XDP_PASS)
        {.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = BPF_REG_1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = sockets}, {0},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_2, .imm = 0},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = XDP_PASS},
        {.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map},
        {.code = BPF_JMP | BPF_EXIT},
    };
    int loaded = bpf_prog_load(BPF_PROG_TYPE_XDP, "redirect", "GPL", program, sizeof program / sizeof *program, NULL);
    require(loaded >= 0, "XDP program");
    LIBBPF_OPTS(bpf_link_create_opts, mode, .flags = native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);
    require(bpf_link_create(loaded, interface, BPF_XDP, &mode) >= 0, "attaching the XDP program");
}

// Gives the kernel a frame to receive into: the whole of it, wherever its packet began.
static void give_back(struct endpoint *end, uint64_t address)
{
    *address_at(&end->fill, end->filled++) = address - address % FRAME_BYTES;
}

static void recycle_sent_frames(struct endpoint *end)
{
    uint32_t gone = load(end->completion.producer);
    while (end->completed != gone)
        give_back(end, *address_at(&end->completion, end->completed++));
    publish(end->completion.consumer, gone);
}

// Balances a batch of the frames that have arrived; returns how many there were.
static uint32_t forward_batch(struct endpoint *end, struct balancer *balancer)
{
    uint32_t waiting = load(end->receive.producer) - end->received, batch = waiting < BATCH ? waiting : BATCH;
    for (uint32_t i = 0; i < batch; i++) {
        struct xdp_desc *frame = frame_at(&end->receive, end->received++);
        unsigned bytes = balance(balancer, end->memory + frame->addr, frame->len);
        if (bytes > 0)
            *frame_at(&end->send, end->sent++) = (struct xdp_desc){.addr = frame->addr - GRE_OVERHEAD, .len = bytes};
        else
            give_back(end, frame->addr);
    }
    publish(end->receive.consumer, end->received);
    publish(end->send.producer, end->sent);
    publish(end->fill.producer, end->filled);
    return batch;
}

int main(int count, char **arguments)
{
    require_usage(count == 4, "af_xdp INTERFACE LOOKUP_TABLE native|generic");
    struct endpoint end = {0};
    struct balancer *balancer = new_balancer(arguments[2]);
    open_rings(&end);
    for (uint64_t i = 0; i < ENTRIES; i++)
        give_back(&end, i * FRAME_BYTES);
    publish(end.fill.producer, end.filled);
    redirect_frames(end.socket, if_nametoindex(arguments[1]), strcmp(arguments[3], "native") == 0);
    say_ready();
    struct pollfd arrival = {.fd = end.socket, .events = POLLIN};
    for (;;) {
        recycle_sent_frames(&end);
        if (forward_batch(&end, balancer) == 0 && end.sent == end.completed)
            poll(&arrival, 1, -1);
        else
            sendto(end.socket, NULL, 0, MSG_DONTWAIT, NULL, 0); // the kernel sends what the ring holds
    }
}
