"""The password of the tests' users, and a hash of it that is quick to check: each stored hash brings its own costs."""

import argon2

PASSWORD = "correct horse"
PASSWORD_HASH = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
