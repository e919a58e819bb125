/* A sample in, the output's integers out. */
#include <stdio.h>

#include "@NAME@.h"

/* Your values instead of zeros. */
static float sensor(int input, size_t element) {
    (void)input;
    (void)element;
    return 0;
}

@MAIN@ {
    for (int entry = 0; entry < NETWORK_ENTRIES; entry++)
        for (size_t i = 0; i < network_entries[entry].count; i++) {
            const float value = sensor(network_entries[entry].input, i);
            network_quantize_part(entry, i, 1, &value);
        }
    network_run();
    for (int i = 0; i < NETWORK_OUTPUTS; i++)
        printf("output %d: %ld\n", i,
               (long)mps_get(network_output(), network_result.type, (size_t)i));
@RETURN@}
