// Loads kernel_xdp.bpf.o, fills its maps and keeps it on an interface as long as this process lives.
//
//     kernel_xdp INTERFACE LOOKUP_TABLE OBJECT
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <unistd.h>

#include "balancer.h"
#include "kernel_xdp.h"
#include "program.h"

static int map_of(struct bpf_object *object, const char *name)
{
    return bpf_object__find_map_fd_by_name(object, name);
}

static void put(int map, const void *key, const void *value)
{
    require(bpf_map_update_elem(map, key, value, BPF_ANY) == 0, "map");
}

static void fill(struct bpf_object *object, const uint16_t *slots)
{
    static const uint16_t protocols[] = {PROTOCOL_TCP, PROTOCOL_UDP};
    for (int i = 0; i < 2; i++) {
        struct service service = {{{0, 0, NET32(0x0000ffff), NET32(VIP)}}, NET16(VIP_PORT), protocols[i]};
        put(map_of(object, "services"), &service, &(uint32_t){0});
    }
    for (uint32_t slot = 0; slot < TABLE_SIZE; slot++)
        put(map_of(object, "lookup_table"), &slot, &(uint32_t){slots[slot]});
    for (uint32_t backend = 0; backend < BACKENDS; backend++)
        put(map_of(object, "backends"), &backend, &(uint32_t){backend});
}

int main(int count, char **arguments)
{
    require_usage(count == 4, "kernel_xdp INTERFACE LOOKUP_TABLE OBJECT");
    struct bpf_object *object = bpf_object__open_file(arguments[3], NULL);
    require(object && bpf_object__load(object) == 0, arguments[3]);
    fill(object, new_balancer(arguments[2])->slots);
    int program = bpf_program__fd(bpf_object__find_program_by_name(object, "balance"));
    LIBBPF_OPTS(bpf_link_create_opts, native, .flags = XDP_FLAGS_DRV_MODE);
    require(bpf_link_create(program, if_nametoindex(arguments[1]), BPF_XDP, &native) >= 0, "attaching");
    say_ready();
    pause();
}
