/* A sample in, its class out over the UART. */
#include "border.h"
#include "firmware.h"
#include "network.h"

int main(void) {
    const void *output = network_output();
    int best = 0;
    for (int entry = 0; entry < NETWORK_ENTRIES; entry++)
        network_quantize(entry, sample[network_entries[entry].input]);
    network_run();
    for (int i = 1; i < NETWORK_OUTPUTS; i++)
        if (mps_get(output, network_result.type, i) > mps_get(output, network_result.type, best))
            best = i;
    uart_start();
    uart_text("class ");
    uart_number((uint64_t)best);
    uart_text("\n");
    return 0;
}
