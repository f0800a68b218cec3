// How long a packet takes from the router's end of the wire through the Maglev and back: sent and received here, so
// that one clock times both. One packet is under way at a time; each carries its number, by which it is known again.
//
//     latency INTERFACE PACKETS RATE
//
// prints "SENT LOST P50_NS P99_NS P999_NS". It never sleeps while it waits: its own waking up is not to be measured.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "packet.h"
#include "program.h"

#define FRAME_BYTES 100u
#define NUMBER_BYTES 4u        // at the end of the packet
#define FIRST_SOURCE 0xc6120000u // 198.18.0.0
#define FLOWS 1024u
#define LOST_NS 20000000       // who has not come back after this time is lost

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static int open_socket(const char *interface)
{
    int opened = socket(AF_PACKET, SOCK_RAW, 0), yes = 1;
    require(opened >= 0, "socket");
    setsockopt(opened, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes);
    setsockopt(opened, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes);
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
                                  .sll_ifindex = if_nametoindex(interface)};
    require(bind(opened, (void *)&address, sizeof address) == 0, interface);
    return opened;
}

static void make_frame(uint8_t *frame, uint32_t number)
{
    struct iphdr *ip = (void *)(frame + sizeof(struct ethhdr));
    unsigned total = FRAME_BYTES - sizeof(struct ethhdr);
    *(struct ethhdr *)frame = (struct ethhdr){MAGLEV_MAC, ROUTER_MAC, NET16(ETH_P_IP)};
    *ip = (struct iphdr){.version = 4, .ihl = 5, .tot_len = NET16(total), .ttl = TTL, .protocol = PROTOCOL_TCP,
                         .saddr = NET32(FIRST_SOURCE + number % FLOWS), .daddr = NET32(VIP)};
    ip->check = ~header_sum(ip);
    *(struct tcphdr *)(ip + 1) = (struct tcphdr){.source = NET16(1024), .dest = NET16(VIP_PORT), .doff = 5, .ack = 1};
    memcpy(frame + FRAME_BYTES - NUMBER_BYTES, &number, NUMBER_BYTES);
}

// Waits for the packet with a number to come back, in GRE or as it was; returns when it did, or 0 if it is lost.
static int64_t wait_for(int socket, uint32_t number, int64_t deadline)
{
    uint8_t frame[2048];
    uint32_t found;
    while (now_ns() < deadline) {
        ssize_t bytes = recv(socket, frame, sizeof frame, MSG_DONTWAIT);
        if (bytes < (ssize_t)FRAME_BYTES)
            continue;
        memcpy(&found, frame + bytes - NUMBER_BYTES, NUMBER_BYTES);
        if (found == number)
            return now_ns();
    }
    return 0;
}

static int ascending(const void *one, const void *other)
{
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return (a > b) - (a < b);
}

int main(int count, char **arguments)
{
    require_usage(count == 4 && atoi(arguments[2]) > 0 && atof(arguments[3]) > 0, "latency INTERFACE PACKETS RATE");
    uint32_t packets = atoi(arguments[2]), back = 0;
    int64_t gap = 1e9 / atof(arguments[3]), due = now_ns(), *taken = calloc(packets, sizeof *taken);
    int wire = open_socket(arguments[1]);
    uint8_t frame[FRAME_BYTES] = {0};
    for (uint32_t number = 0; number < packets; number++) {
        make_frame(frame, number);
        while (now_ns() < due)
            ;
        int64_t sent = now_ns();
        send(wire, frame, FRAME_BYTES, 0);
        int64_t arrived = wait_for(wire, number, sent + LOST_NS);
        if (arrived)
            taken[back++] = arrived - sent;
        due += gap;
        if (due < now_ns())
            due = now_ns(); // late ones are not caught up with in a burst
    }
    qsort(taken, back, sizeof *taken, ascending);
    int64_t *none = &(int64_t){0};
    printf("%u %u %ld %ld %ld\n", packets, packets - back, *(back ? taken + back / 2 : none),
           *(back ? taken + back * 99 / 100 : none), *(back ? taken + back * 999 / 1000 : none));
}
