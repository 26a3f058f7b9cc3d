/* LD_PRELOAD library for redis-server that simulates a disk with three seconds per write. */
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd) {
  sleep(3);
  return syscall(SYS_fdatasync, fd);
}
