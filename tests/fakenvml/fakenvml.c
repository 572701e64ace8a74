/* A stand-in for NVIDIA's libnvidia-ml.so.1. Its world is a text file, read anew at every call:
 *
 *   driver 570.00
 *   device GPU-1111 85899345920 1048576 off NVIDIA H100      uuid, total, used by nobody named here, MIG, name
 *   instance 0 0 MIG-2222 10737418240 0 1 0                  card, slot, uuid, total, used, GPU and compute instance
 *   process 0 compute 4711 536870912                         card (or card.slot), list, pid, bytes or "unknown"
 *   error nvmlDeviceGetCount 15                              a function, with or without its version, and a code
 *   delay nvmlDeviceGetMemoryInfo 250                        milliseconds
 *   folder /tmp/use                                          processes publish "use.PID" there: lines of card, bytes
 *
 * What processes use is added to what their card has in use. A published process that has ended uses nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
  SUCCESS = 0,
  UNINITIALIZED = 1,
  INVALID_ARGUMENT = 2,
  NOT_SUPPORTED = 3,
  NOT_FOUND = 6,
  INSUFFICIENT_SIZE = 7,
  DRIVER_NOT_LOADED = 9,
  ARGUMENT_VERSION_MISMATCH = 25,
};
enum { CARDS = 16, SLOTS = 8, PROCESSES = 512, NO_SLOT = -1 };
#define UNKNOWN_BYTES UINT64_MAX

typedef uintptr_t Handle; /* (card + 1) * 256 + slot + 1, and slot + 1 is 0 for the card itself */
typedef enum { MIG_UNSUPPORTED, MIG_OFF, MIG_ON } Mig;
typedef enum { COMPUTE, GRAPHICS, MPS } Kind;

typedef struct {
  char uuid[96], name[96];
  uint64_t total, used;
  unsigned gpu_instance, compute_instance;
} Part;
typedef struct {
  Part whole, slots[SLOTS];
  Mig mig;
} Card;
typedef struct {
  int card, slot;
  Kind kind;
  unsigned pid;
  uint64_t bytes;
} Process;
typedef struct {
  char driver[96];
  int cards, processes;
  Card card[CARDS];
  Process process[PROCESSES];
} World;

typedef struct {
  unsigned pid;
  unsigned long long used;
  unsigned gpu_instance, compute_instance;
} ProcessInfo; /* of _v2 and _v3 */
typedef struct {
  unsigned long long total, free, used;
} Memory;
typedef struct {
  unsigned version;
  unsigned long long total, reserved, free, used;
} Memory2;

static int initialised;

/* ---- The world file */

static int lives(unsigned pid) {
  char path[64], line[512];
  snprintf(path, sizeof path, "/proc/%u/stat", pid);
  FILE* file = fopen(path, "r");
  if (file == NULL) {
    return 0;
  }
  const char* read = fgets(line, sizeof line, file);
  fclose(file);
  const char* end = read == NULL ? NULL : strrchr(line, ')');
  return end != NULL && end[1] == ' ' && end[2] != 'Z' && end[2] != 'X';
}

static void add_process(World* world, int card, int slot, const char* kind, unsigned pid, uint64_t bytes) {
  if (world->processes >= PROCESSES || card < 0 || card >= CARDS) {
    return;
  }
  const Kind list = strcmp(kind, "graphics") == 0 ? GRAPHICS : strcmp(kind, "mps") == 0 ? MPS : COMPUTE;
  world->process[world->processes++] = (Process){card, slot, list, pid, bytes};
}

static void read_folder(World* world, const char* folder) {
  DIR* entries = opendir(folder);
  if (entries == NULL) {
    return;
  }
  for (struct dirent* entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
    unsigned pid;
    int end = 0;
    if (sscanf(entry->d_name, "use.%u%n", &pid, &end) != 1 || entry->d_name[end] != '\0' || !lives(pid)) {
      continue;
    }
    char path[1700];
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    FILE* file = fopen(path, "r");
    int card;
    unsigned long long bytes;
    while (file != NULL && fscanf(file, "%d %llu", &card, &bytes) == 2) {
      add_process(world, card, NO_SLOT, "compute", pid, bytes);
    }
    if (file != NULL) {
      fclose(file);
    }
  }
  closedir(entries);
}

static void read_line(World* world, char* line) {
  char first[96], second[1200], third[96];
  int card = 0, slot = 0, end = 0;
  unsigned pid, gpu_instance, compute_instance;
  unsigned long long total, used;
  line[strcspn(line, "\n")] = '\0';
  if (sscanf(line, "device %95s %llu %llu %95s %n", first, &total, &used, third, &end) == 4 && end > 0) {
    if (world->cards < CARDS) {
      Card* new = &world->card[world->cards++];
      new->mig = strcmp(third, "on") == 0 ? MIG_ON : strcmp(third, "off") == 0 ? MIG_OFF : MIG_UNSUPPORTED;
      new->whole.total = total;
      new->whole.used = used;
      snprintf(new->whole.uuid, sizeof new->whole.uuid, "%s", first);
      snprintf(new->whole.name, sizeof new->whole.name, "%s", line + end);
    }
  } else if (
      sscanf(
          line, "instance %d %d %95s %llu %llu %u %u", &card, &slot, first, &total, &used, &gpu_instance,
          &compute_instance) == 7) {
    if (card >= 0 && card < CARDS && slot >= 0 && slot < SLOTS) {
      Part* part = &world->card[card].slots[slot];
      *part = (Part){.total = total, .used = used, .gpu_instance = gpu_instance, .compute_instance = compute_instance};
      snprintf(part->uuid, sizeof part->uuid, "%s", first);
      snprintf(part->name, sizeof part->name, "Fake MIG slice %d", slot);
    }
  } else if (sscanf(line, "process %95s %95s %u %1199s", first, third, &pid, second) == 4) {
    const int has_slot = sscanf(first, "%d.%d", &card, &slot) == 2;
    const uint64_t bytes = strcmp(second, "unknown") == 0 ? UNKNOWN_BYTES : strtoull(second, NULL, 10);
    add_process(world, card, has_slot ? slot : NO_SLOT, third, pid, bytes);
  } else if (sscanf(line, "driver %95s", first) == 1) {
    snprintf(world->driver, sizeof world->driver, "%s", first);
  } else if (sscanf(line, "folder %1199s", second) == 1) {
    read_folder(world, second);
  }
}

/* Whether a line of the file names a function, with or without its version. */
static int is_about(const char* line_name, const char* function) {
  const size_t length = strlen(line_name);
  if (strncmp(line_name, function, length) != 0) {
    return 0;
  }
  const char* rest = function + length;
  return *rest == '\0' || (rest[0] == '_' && rest[1] == 'v' && rest[2] >= '1' && rest[2] <= '9' && rest[3] == '\0');
}

/* Read the world as it is now, sleep where the file says so, and give the error that it injects into a function. */
static int enter(const char* function, World* world) {
  memset(world, 0, sizeof *world);
  const char* path = getenv("GPUCLEAN_FAKENVML_WORLD");
  FILE* file = path == NULL ? NULL : fopen(path, "r");
  if (file == NULL) {
    return DRIVER_NOT_LOADED;
  }
  char line[1400], name[96];
  int code, injected = SUCCESS;
  long milliseconds = 0, found;
  while (fgets(line, sizeof line, file) != NULL) {
    if (sscanf(line, "error %95s %d", name, &code) == 2) {
      injected = is_about(name, function) ? code : injected;
    } else if (sscanf(line, "delay %95s %ld", name, &found) == 2) {
      milliseconds = is_about(name, function) ? found : milliseconds;
    } else {
      read_line(world, line);
    }
  }
  fclose(file);
  if (milliseconds > 0) {
    const struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&pause, NULL);
  }
  if (injected == SUCCESS && initialised == 0 && strncmp(function, "nvmlInit", 8) != 0) {
    return UNINITIALIZED;
  }
  return injected;
}

#define ENTER()                              \
  World world;                               \
  {                                          \
    const int error = enter(__func__, &world); \
    if (error != SUCCESS) {                  \
      return error;                          \
    }                                        \
  }

#define PART()                                         \
  int card, slot;                                      \
  const Part* part = find(&world, handle, &card, &slot); \
  if (part == NULL) {                                  \
    return INVALID_ARGUMENT;                           \
  }

static const Part* find(const World* world, Handle handle, int* card, int* slot) {
  *card = (int)(handle / 256) - 1;
  *slot = (int)(handle % 256) - 1;
  if (*card < 0 || *card >= world->cards || *slot >= SLOTS) {
    return NULL;
  }
  const Part* part = *slot == NO_SLOT ? &world->card[*card].whole : &world->card[*card].slots[*slot];
  return part->uuid[0] == '\0' ? NULL : part;
}

static int copy(char* to, unsigned length, const char* text) {
  return snprintf(to, length, "%s", text) < (int)length ? SUCCESS : INSUFFICIENT_SIZE;
}

/* ---- What nvidia-ml-py calls */

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  ENTER();
  ++initialised;
  return SUCCESS;
}

int nvmlInit_v2(void) {
  return nvmlInitWithFlags(0);
}

int nvmlShutdown(void) {
  ENTER();
  --initialised;
  return SUCCESS;
}

const char* nvmlErrorString(int code) {
  static char text[64];
  snprintf(text, sizeof text, "Fake error %d", code);
  return text;
}

int nvmlSystemGetDriverVersion(char* text, unsigned length) {
  ENTER();
  return copy(text, length, world.driver);
}

int nvmlDeviceGetCount_v2(unsigned* count) {
  ENTER();
  *count = (unsigned)world.cards;
  return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle* handle) {
  ENTER();
  if (index >= (unsigned)world.cards) {
    return INVALID_ARGUMENT;
  }
  *handle = (index + 1) * 256;
  return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char* uuid, Handle* handle) {
  ENTER();
  for (int card = 0; card < world.cards; ++card) {
    for (int slot = NO_SLOT; slot < SLOTS; ++slot) {
      const Part* part = slot == NO_SLOT ? &world.card[card].whole : &world.card[card].slots[slot];
      if (part->uuid[0] != '\0' && strcmp(part->uuid, uuid) == 0) {
        *handle = (Handle)((card + 1) * 256 + slot + 1);
        return SUCCESS;
      }
    }
  }
  return NOT_FOUND;
}

int nvmlDeviceGetIndex(Handle handle, unsigned* index) {
  ENTER();
  PART();
  (void)part;
  *index = (unsigned)(slot == NO_SLOT ? card : slot);
  return SUCCESS;
}

int nvmlDeviceGetUUID(Handle handle, char* text, unsigned length) {
  ENTER();
  PART();
  return copy(text, length, part->uuid);
}

int nvmlDeviceGetName(Handle handle, char* text, unsigned length) {
  ENTER();
  PART();
  return copy(text, length, part->name);
}

static uint64_t used_of(const World* world, const Part* part, int card, int slot) {
  uint64_t used = part->used;
  for (int i = 0; i < world->processes; ++i) {
    const Process* process = &world->process[i];
    const int is_here = process->card == card && (slot == NO_SLOT || process->slot == slot);
    int is_listed_before = 0; /* a process in several lists has the same memory in each */
    for (int j = 0; j < i; ++j) {
      const Process* other = &world->process[j];
      is_listed_before |= other->card == process->card && other->slot == process->slot && other->pid == process->pid &&
                          other->kind != process->kind;
    }
    used += is_here && !is_listed_before && process->bytes != UNKNOWN_BYTES ? process->bytes : 0;
  }
  return used < part->total ? used : part->total;
}

int nvmlDeviceGetMemoryInfo(Handle handle, Memory* memory) {
  ENTER();
  PART();
  const uint64_t used = used_of(&world, part, card, slot);
  *memory = (Memory){part->total, part->total - used, used};
  return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(Handle handle, Memory2* memory) {
  ENTER();
  PART();
  if (memory->version != (sizeof *memory | 2u << 24)) {
    return ARGUMENT_VERSION_MISMATCH;
  }
  const uint64_t used = used_of(&world, part, card, slot);
  *memory = (Memory2){memory->version, part->total, 0, part->total - used, used};
  return SUCCESS;
}

static int list(const World* world, Handle handle, Kind kind, unsigned* count, ProcessInfo* infos) {
  int card, slot;
  if (find(world, handle, &card, &slot) == NULL) {
    return INVALID_ARGUMENT;
  }
  unsigned found = 0;
  for (int i = 0; i < world->processes; ++i) {
    const Process* process = &world->process[i];
    if (process->card != card || (slot != NO_SLOT && process->slot != slot) || process->kind != kind) {
      continue;
    }
    if (infos != NULL && found < *count) {
      infos[found] = (ProcessInfo){process->pid, process->bytes, UINT32_MAX, UINT32_MAX};
    }
    ++found;
  }
  const int is_enough = found <= *count;
  *count = found;
  return is_enough ? SUCCESS : INSUFFICIENT_SIZE;
}

#define LIST(name, kind)                                              \
  int name(Handle handle, unsigned* count, ProcessInfo* infos) {      \
    ENTER();                                                          \
    return list(&world, handle, kind, count, infos);                  \
  }
LIST(nvmlDeviceGetComputeRunningProcesses_v2, COMPUTE)
LIST(nvmlDeviceGetComputeRunningProcesses_v3, COMPUTE)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, GRAPHICS)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, GRAPHICS)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, MPS)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, MPS)

/* ---- MIG */

int nvmlDeviceGetMigMode(Handle handle, unsigned* current, unsigned* pending) {
  ENTER();
  PART();
  (void)part;
  const Mig mig = world.card[card].mig;
  if (mig == MIG_UNSUPPORTED || slot != NO_SLOT) {
    return NOT_SUPPORTED;
  }
  *current = *pending = mig == MIG_ON;
  return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(Handle handle, unsigned* count) {
  ENTER();
  PART();
  (void)part;
  *count = world.card[card].mig == MIG_UNSUPPORTED ? 0 : SLOTS - 1;
  return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Handle handle, unsigned index, Handle* instance) {
  ENTER();
  PART();
  (void)part;
  if (slot != NO_SLOT || index >= SLOTS) {
    return INVALID_ARGUMENT;
  }
  if (world.card[card].mig != MIG_ON || world.card[card].slots[index].uuid[0] == '\0') {
    return NOT_FOUND;
  }
  *instance = (Handle)(card + 1) * 256 + index + 1;
  return SUCCESS;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Handle handle, Handle* whole) {
  ENTER();
  PART();
  (void)part;
  *whole = (Handle)(card + 1) * 256;
  return slot == NO_SLOT ? INVALID_ARGUMENT : SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(Handle handle, unsigned* id) {
  ENTER();
  PART();
  *id = part->gpu_instance;
  return slot == NO_SLOT ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(Handle handle, unsigned* id) {
  ENTER();
  PART();
  *id = part->compute_instance;
  return slot == NO_SLOT ? NOT_SUPPORTED : SUCCESS;
}
