"""A sender that behaves as that of CipherMQ 0.2.0.

One message, three attempts of five seconds, each on a connection of its own that is not closed after a timeout. What one
recv(1024) gives must start with "ACK <id>".

    sender_020.py PORT [TEXT]
"""

import socket
import sys
import time

from envelope import encrypt, to_line

ATTEMPTS = 3


def send(port, message, pending):
    message_id = message["message_id"]
    request = f"publish default_exchange default_key {to_line(message)}\n".encode()
    for attempt in range(1, ATTEMPTS + 1):
        print(f"🚀 [SENDER] Sending message {message_id} to server (Attempt {attempt}/{ATTEMPTS})")
        try:
            connection = socket.socket()
            connection.settimeout(5)
            connection.connect(("127.0.0.1", port))
            connection.sendall(request)
            reply = connection.recv(1024).decode().strip()
            if reply.startswith(f"ACK {message_id}"):
                print(f"✅ [SENDER] Server ACK received for message {message_id}: {reply}")
                pending.pop(message_id)
                print(f"🗑️ [SENDER] Message {message_id} removed from pending messages")
                connection.close()
                return True
            print(f"⚠️ [SENDER] Unexpected server response: {reply}")
            connection.close()
        except socket.timeout:
            # The connection is left open, as the original leaves it.
            leaked.append(connection)
            print(f"🔁 [SENDER] Timeout for message {message_id}, retrying ({attempt}/{ATTEMPTS})...")
        except OSError as error:
            print(f"❌ [SENDER] Error sending message {message_id}: {error}")
        time.sleep(1)
    print(f"❌ [SENDER] Failed to send message {message_id} after {ATTEMPTS} attempts.")
    return False


leaked = []

if __name__ == "__main__":
    text = sys.argv[2] if len(sys.argv) > 2 else "This is a test hybrid message."
    print(f"📝 [SENDER] Original message: {text}")
    message = encrypt(text)
    pending = {message["message_id"]: message}
    print(f"📤 [SENDER] Message {message['message_id']} added to pending messages")
    sys.exit(0 if send(int(sys.argv[1]), message, pending) else 1)
