"""Makes receiver_private.pem (PKCS#1) and receiver_public.pem in the current directory, as the originals' key generator does."""

from Crypto.PublicKey import RSA

if __name__ == "__main__":
    key = RSA.generate(2048)
    for name, pem in (("receiver_private.pem", key.export_key()), ("receiver_public.pem", key.publickey().export_key())):
        with open(name, "wb") as file:
            file.write(pem)
