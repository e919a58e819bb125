// A sample in, what the output's integers stand for out.
#include <@NAME@.h>

#include <Arduino.h>

// Your values instead of zeros.
static float sensor(int input, size_t element) {
  (void)input;
  (void)element;
  return 0;
}

void setup() { Serial.begin(115200); }

void loop() {
  for (int entry = 0; entry < NETWORK_ENTRIES; entry++)
    for (size_t i = 0; i < network_entries[entry].count; i++) {
      const float value = sensor(network_entries[entry].input, i);
      network_quantize_part(entry, i, 1, &value);
    }
  const unsigned long start = micros();
  network_run();
  const unsigned long taken = micros() - start;
  for (int i = 0; i < NETWORK_OUTPUTS; i++)
    Serial.println(network_real(i), 6);
  Serial.print(taken);
  Serial.println(" us");
  delay(1000);
}
