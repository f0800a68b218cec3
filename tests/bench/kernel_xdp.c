// Loads kernel_xdp.bpf.o, fills its lookup table and keeps it on an interface as long as this process lives.
//
//     kernel_xdp INTERFACE LOOKUP_TABLE OBJECT
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <unistd.h>

#include "balancer.h"
#include "program.h"

static void fill_lookup_table(int map, const uint16_t *slots)
{
    for (uint32_t slot = 0; slot < TABLE_SIZE; slot++)
        require(bpf_map_update_elem(map, &slot, &(uint32_t){slots[slot]}, BPF_ANY) == 0, "lookup table");
}

int main(int count, char **arguments)
{
    require_usage(count == 4, "kernel_xdp INTERFACE LOOKUP_TABLE OBJECT");
    struct bpf_object *object = bpf_object__open_file(arguments[3], NULL);
    require(object && bpf_object__load(object) == 0, arguments[3]);
    fill_lookup_table(bpf_object__find_map_fd_by_name(object, "lookup_table"), new_balancer(arguments[2])->slots);
    int program = bpf_program__fd(bpf_object__find_program_by_name(object, "balance"));
    LIBBPF_OPTS(bpf_link_create_opts, native, .flags = XDP_FLAGS_DRV_MODE);
    require(bpf_link_create(program, if_nametoindex(arguments[1]), BPF_XDP, &native) >= 0, "attaching");
    say_ready();
    pause();
}
