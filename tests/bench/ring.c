// c-ring: a Maglev on packet sockets. Frames arrive in a ring of blocks that the kernel shares with us (TPACKET_V3,
// packet(7) and Documentation/networking/packet_mmap.rst), and leave by sendmmsg(2), a block's frames at a time.
//
//     ring INTERFACE LOOKUP_TABLE
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "balancer.h"
#include "program.h"

#define BLOCK_BYTES (1u << 18)
#define BLOCKS 64
#define RETIRE_MS 1 // a block that is not full is handed over after this time
#define HEADROOM 64 // before each frame, for GRE
#define BATCH 64    // frames to one sendmmsg
#define BUFFER_BYTES (1 << 25)

static struct mmsghdr batch[BATCH];
static struct iovec frames[BATCH];

static void set_option(int socket, int name, const void *value, socklen_t bytes)
{
    require(setsockopt(socket, SOL_PACKET, name, value, bytes) == 0, "setsockopt");
}

// Returns a packet socket on an interface; protocol 0 makes one that only sends.
static int open_socket(const char *interface, uint16_t protocol)
{
    int opened = socket(AF_PACKET, SOCK_RAW, 0), yes = 1, bytes = BUFFER_BYTES;
    require(opened >= 0, "socket");
    set_option(opened, PACKET_IGNORE_OUTGOING, &yes, sizeof yes); // or we would balance what we have sent
    set_option(opened, PACKET_QDISC_BYPASS, &yes, sizeof yes);
    setsockopt(opened, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol),
                                  .sll_ifindex = if_nametoindex(interface)};
    require(bind(opened, (void *)&address, sizeof address) == 0, interface);
    return opened;
}

// Returns the blocks in which frames arrive. The socket must not be bound to a protocol yet, or it would miss some.
static uint8_t *map_ring(int socket)
{
    int version = TPACKET_V3, headroom = HEADROOM;
    struct tpacket_req3 request = {.tp_block_size = BLOCK_BYTES, .tp_block_nr = BLOCKS, .tp_frame_size = 2048,
                                   .tp_frame_nr = BLOCK_BYTES / 2048 * BLOCKS, .tp_retire_blk_tov = RETIRE_MS};
    set_option(socket, PACKET_VERSION, &version, sizeof version);
    set_option(socket, PACKET_RESERVE, &headroom, sizeof headroom);
    set_option(socket, PACKET_RX_RING, &request, sizeof request);
    int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    uint8_t *ring = mmap(NULL, (size_t)BLOCK_BYTES * BLOCKS, protection, flags, socket, 0);
    require(ring != MAP_FAILED, "mmap");
    return ring;
}

// Sends a batch. What the kernel refuses is lost, as on a wire.
static void send_batch(int socket, int count)
{
    for (int sent = 0; sent < count;) {
        int more = sendmmsg(socket, batch + sent, count - sent, 0);
        sent += more > 0 ? more : 1;
    }
}

// Balances every frame of a block that the kernel has filled.
static void forward_block(struct balancer *balancer, int socket, struct tpacket_block_desc *block)
{
    struct tpacket3_hdr *header = (void *)((uint8_t *)block + block->hdr.bh1.offset_to_first_pkt);
    int ready = 0;
    for (unsigned left = block->hdr.bh1.num_pkts; left > 0; left--) {
        struct tpacket3_hdr *next = (void *)((uint8_t *)header + header->tp_next_offset);
        __builtin_prefetch((uint8_t *)next + header->tp_mac);
        uint8_t *frame = (uint8_t *)header + header->tp_mac;
        unsigned bytes = balance(balancer, frame, header->tp_snaplen);
        if (bytes > 0)
            frames[ready++] = (struct iovec){frame - GRE_OVERHEAD, bytes};
        if (ready == BATCH) {
            send_batch(socket, ready);
            ready = 0;
        }
        header = next;
    }
    send_batch(socket, ready);
}

int main(int count, char **arguments)
{
    require_usage(count == 3, "ring INTERFACE LOOKUP_TABLE");
    struct balancer *balancer = new_balancer(arguments[2]);
    int receiver = open_socket(arguments[1], 0), sender = open_socket(arguments[1], 0);
    uint8_t *ring = map_ring(receiver);
    struct sockaddr_ll all = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
                              .sll_ifindex = if_nametoindex(arguments[1])};
    require(bind(receiver, (void *)&all, sizeof all) == 0, "bind");
    for (int i = 0; i < BATCH; i++)
        batch[i].msg_hdr = (struct msghdr){.msg_iov = frames + i, .msg_iovlen = 1};
    say_ready();
    for (unsigned number = 0;; number = (number + 1) % BLOCKS) {
        struct tpacket_block_desc *block = (void *)(ring + (size_t)number * BLOCK_BYTES);
        struct pollfd ready = {.fd = receiver, .events = POLLIN};
        while (!(__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
            poll(&ready, 1, -1);
        forward_block(balancer, sender, block);
        __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    }
}
