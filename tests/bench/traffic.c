// The generator and its counters: a flood of packets of many flows on the router's end of the wire.
//
//     traffic INTERFACE OBJECT [--length 60] [--flows 65536] [--vips 1] [--udp] [--syn-every 0]
//
// It obeys commands on standard input, a line each, and ends with it:
//
//     flood SECONDS RATE   begins to send, RATE packets a second (0: as fast as it goes), for SECONDS at most
//     count                answers "TIME_NS SENT BALANCED PLAIN": all that was sent and has come back so far
//     halt                 ends the flood, then answers as `count`
//
// Whatever comes back is counted in the same place, behind the driver (tc), so that all senders bear the same cost.
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <getopt.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "packet.h"
#include "program.h"
#include "traffic.h"

#define LARGEST_FRAME 2048
#define FAST_BATCH 64     // frames that go out together when nobody counts the time
#define SLOW_BATCH 32     // at a given rate, the most of them
#define BATCHES_A_SECOND 20000
#define MOST_PACKETS 2000000000u

struct settings {
    const char *interface, *object;
    int udp;
    unsigned length, flows, vips, syn_every;
};

struct flood {
    int program;
    double seconds, rate;
    unsigned length, batch;
    __u8 frame[LARGEST_FRAME];
};

static const __u32 only = 0; // the one key of each map
static int orders, turns, returns;
static struct order order;
static struct flood flood;
static pthread_t flooding;
static bool is_flooding;

static __u64 now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static struct settings read_settings(int count, char **arguments)
{
    struct settings found = {.length = 60, .flows = 65536, .vips = 1};
    static const struct option options[] = {{"length", 1, 0, 'l'}, {"flows", 1, 0, 'f'}, {"vips", 1, 0, 'v'},
                                            {"udp", 0, 0, 'u'}, {"syn-every", 1, 0, 's'}, {0}};
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        unsigned number = optarg ? strtoul(optarg, NULL, 10) : 0;
        switch (option) {
        case 'u': found.udp = true; break;
        case 'l': found.length = number; break;
        case 'f': found.flows = number; break;
        case 'v': found.vips = number; break;
        case 's': found.syn_every = number; break;
        default: exit(2);
        }
    }
    require_usage(optind + 2 == count && found.flows >= 1 && found.flows <= 1 << 24 && found.vips >= 1 &&
                      found.length >= 60 && found.length <= LARGEST_FRAME,
                  "traffic INTERFACE OBJECT [options]; 1 to 2^24 flows, frames of 60 to 2048 bytes");
    found.interface = arguments[optind];
    found.object = arguments[optind + 1];
    return found;
}

// Writes the frame that all packets are made of, and returns the sum of what their IP headers have in common.
static unsigned make_frame(const struct settings *settings)
{
    struct iphdr *ip = (void *)(flood.frame + sizeof(struct ethhdr));
    unsigned total = settings->length - sizeof(struct ethhdr);
    *ip = (struct iphdr){.version = 4, .ihl = 5, .tot_len = NET16(total), .frag_off = NET16(DONT_FRAGMENT),
                         .ttl = TTL, .protocol = settings->udp ? PROTOCOL_UDP : PROTOCOL_TCP};
    if (settings->udp)
        *(struct udphdr *)(ip + 1) = (struct udphdr){.dest = NET16(VIP_PORT), .len = NET16(total - sizeof *ip)};
    else
        *(struct tcphdr *)(ip + 1) = (struct tcphdr){.dest = NET16(VIP_PORT), .doff = 5, .ack = 1, .window = 0xffff};
    return NET16(header_sum(ip));
}

static unsigned common_divisor(unsigned a, unsigned b)
{
    return b == 0 ? a : common_divisor(b, a % b);
}

// Returns a step through all flows that leaves none out: near the golden section of them, prime to their number.
static unsigned stride_of(unsigned flows)
{
    unsigned stride = flows * 0.618;
    while (stride > 1 && common_divisor(flows, stride) != 1)
        stride--;
    return flows > 1 ? stride : 0;
}

static void load(const struct settings *settings)
{
    struct bpf_object *object = bpf_object__open_file(settings->object, NULL);
    require(object && bpf_object__load(object) == 0, settings->object);
    flood.program = bpf_program__fd(bpf_object__find_program_by_name(object, "make"));
    orders = bpf_object__find_map_fd_by_name(object, "orders");
    turns = bpf_object__find_map_fd_by_name(object, "turns");
    returns = bpf_object__find_map_fd_by_name(object, "returns");
    order = (struct order){.interface = if_nametoindex(settings->interface), .flows = settings->flows,
                           .vips = settings->vips, .stride = stride_of(settings->flows),
                           .syn_every = settings->syn_every, .header_sum = make_frame(settings)};
    flood.length = settings->length;
    LIBBPF_OPTS(bpf_tc_hook, ingress, .ifindex = order.interface, .attach_point = BPF_TC_INGRESS);
    LIBBPF_OPTS(bpf_tc_opts, counter);
    counter.prog_fd = bpf_program__fd(bpf_object__find_program_by_name(object, "count"));
    require(bpf_tc_hook_create(&ingress) == 0 && bpf_tc_attach(&ingress, &counter) == 0, "counting by tc");
}

// Has this thread heed the alarm, or not: it must end the flood, and not the thread that reads commands.
static void heed_alarm(int how)
{
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(how, &alarm, NULL);
}

static void interrupt(int number) { (void)number; } // it only has to end the call

// Sends until the time is over, the number is reached, or a signal comes: the kernel does all of it in one call.
static void *send_flood(void *unused)
{
    LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = flood.frame, .data_size_in = flood.length,
                .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = flood.batch);
    heed_alarm(SIG_UNBLOCK);
    double packets = flood.rate > 0 ? flood.rate * flood.seconds : MOST_PACKETS;
    run.repeat = packets < MOST_PACKETS ? packets : MOST_PACKETS;
    bpf_prog_test_run_opts(flood.program, &run);
    return unused;
}

static void halt(void)
{
    while (is_flooding) {
        pthread_kill(flooding, SIGALRM);
        struct timespec soon = {.tv_nsec = 1000000};
        is_flooding = pthread_timedjoin_np(flooding, NULL, &soon) != 0;
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
}

static void start(double seconds, double rate)
{
    halt();
    unsigned even = rate / BATCHES_A_SECOND;
    flood.seconds = seconds;
    flood.rate = rate;
    flood.batch = rate > 0 ? (even < 1 ? 1 : even > SLOW_BATCH ? SLOW_BATCH : even) : FAST_BATCH;
    order.batch = flood.batch;
    order.gap_ns = rate > 0 ? 1e9 * flood.batch / rate : 0;
    require(bpf_map_update_elem(orders, &only, &order, BPF_ANY) == 0, "order");
    require(pthread_create(&flooding, NULL, send_flood, NULL) == 0, "thread");
    is_flooding = true;
    struct itimerval end = {.it_value = {.tv_sec = seconds, .tv_usec = (seconds - (long)seconds) * 1e6}};
    setitimer(ITIMER_REAL, &end, NULL);
}

static void answer(void)
{
    int cores = libbpf_num_possible_cpus();
    struct returned parts[cores], sum = {0};
    struct turn turn;
    require(bpf_map_lookup_elem(turns, &only, &turn) == 0, "count of packets sent");
    require(bpf_map_lookup_elem(returns, &only, parts) == 0, "count of packets returned");
    for (int core = 0; core < cores; core++) {
        sum.balanced += parts[core].balanced;
        sum.plain += parts[core].plain;
    }
    printf("%llu %llu %llu %llu\n", now_ns(), turn.sent, sum.balanced, sum.plain);
    fflush(stdout);
}

int main(int count, char **arguments)
{
    struct settings settings = read_settings(count, arguments);
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = interrupt}, NULL);
    heed_alarm(SIG_BLOCK);
    load(&settings);
    say_ready();
    char line[80];
    double seconds, rate;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "flood %lf %lf", &seconds, &rate) == 2)
            start(seconds, rate);
        else if (strcmp(line, "halt\n") == 0)
            halt();
        if (strncmp(line, "flood", 5) != 0)
            answer();
    }
    halt();
}
